"""PS3.4: what each SOP class uses and may answer, transcribed a second time.

One line per SOP class and operation: keyword of PS3.6, operation, codes beyond those that PS3.7
gives to all (0105 … 0213, FE00, FF00), as the tables of PS3.4 list them; x stands for any digit.
"""

from __future__ import annotations

__all__ = ["LINES", "NON_PATIENT", "STORED"]

LINES = """
Verification                                    C-ECHO
StorageCommitmentPushModel                      N-ACTION
StorageCommitmentPushModel                      N-EVENT-REPORT
ModalityPerformedProcedureStep                  N-CREATE
ModalityPerformedProcedureStep                  N-SET           0110
ModalityPerformedProcedureStepRetrieve          N-GET           0001
ModalityPerformedProcedureStepNotification      N-EVENT-REPORT
PatientRootQueryRetrieveInformationModelFind    C-FIND          A700 A900 Cxxx FE00 FF00 FF01
PatientRootQueryRetrieveInformationModelMove    C-MOVE          A701 A702 A801 A900 B000 Cxxx FE00 FF00
PatientRootQueryRetrieveInformationModelGet     C-GET           A701 A702 A900 B000 Cxxx FE00 FF00
StudyRootQueryRetrieveInformationModelFind      C-FIND          A700 A900 Cxxx FE00 FF00 FF01
StudyRootQueryRetrieveInformationModelMove      C-MOVE          A701 A702 A801 A900 B000 Cxxx FE00 FF00
StudyRootQueryRetrieveInformationModelGet       C-GET           A701 A702 A900 B000 Cxxx FE00 FF00
PatientStudyOnlyQueryRetrieveInformationModelFind C-FIND        A700 A900 Cxxx FE00 FF00 FF01
PatientStudyOnlyQueryRetrieveInformationModelMove C-MOVE        A701 A702 A801 A900 B000 Cxxx FE00 FF00
PatientStudyOnlyQueryRetrieveInformationModelGet C-GET          A701 A702 A900 B000 Cxxx FE00 FF00
CompositeInstanceRootRetrieveMove               C-MOVE          A701 A702 A801 A900 AA00 AA01 AA02 AA03 AA04 B000 Cxxx FE00 FF00
CompositeInstanceRootRetrieveGet                C-GET           A701 A702 A900 AA00 AA01 AA02 AA03 AA04 B000 Cxxx FE00 FF00
CompositeInstanceRetrieveWithoutBulkDataGet     C-GET           A701 A702 A900 B000 Cxxx FE00 FF00
ModalityWorklistInformationModelFind            C-FIND          A700 A900 Cxxx FE00 FF00 FF01
BasicFilmSession                                N-CREATE        B600
BasicFilmSession                                N-SET           B600
BasicFilmSession                                N-DELETE
BasicFilmSession                                N-ACTION        B601 B602 B604 B609 B60A C600 C601 C603 C613
BasicFilmBox                                    N-CREATE        B605 C616
BasicFilmBox                                    N-SET           B605 C616
BasicFilmBox                                    N-DELETE
BasicFilmBox                                    N-ACTION        B603 B604 B609 B60A C602 C603 C613
BasicGrayscaleImageBox                          N-SET           B604 B605 B609 B60A C603 C605 C613
BasicColorImageBox                              N-SET           B604 B609 B60A C603 C605 C613
BasicAnnotationBox                              N-SET
PresentationLUT                                 N-CREATE        B605
PresentationLUT                                 N-DELETE
PrintJob                                        N-GET
PrintJob                                        N-EVENT-REPORT
Printer                                         N-GET
Printer                                         N-EVENT-REPORT
PrinterConfigurationRetrieval                   N-GET
ProceduralEventLogging                          N-ACTION        B101 B102 B104 C101 C102 C103 C104
SubstanceAdministrationLogging                  N-ACTION        C10E C110 C111
GeneralRelevantPatientInformationQuery          C-FIND          A700 A900 C000 C100 C200 FE00 FF00
BreastImagingRelevantPatientInformationQuery    C-FIND          A700 A900 C000 C100 C200 FE00 FF00
CardiacRelevantPatientInformationQuery          C-FIND          A700 A900 C000 C100 C200 FE00 FF00
InstanceAvailabilityNotification                N-CREATE
MediaCreationManagement                         N-CREATE        A510
MediaCreationManagement                         N-ACTION        A510 C201 C202 C203
MediaCreationManagement                         N-GET           0001
HangingProtocolInformationModelFind             C-FIND          A700 A900 Cxxx FE00 FF00 FF01
HangingProtocolInformationModelMove             C-MOVE          A701 A702 A801 A900 B000 Cxxx FE00 FF00
HangingProtocolInformationModelGet              C-GET           A701 A702 A900 B000 Cxxx FE00 FF00
ProductCharacteristicsQuery                     C-FIND          A700 A900 Cxxx FE00 FF00 FF01
SubstanceApprovalQuery                          C-FIND          A700 A900 Cxxx FE00 FF00 FF01
ColorPaletteQueryRetrieveInformationModelFind   C-FIND          A700 A900 Cxxx FE00 FF00 FF01
ColorPaletteQueryRetrieveInformationModelMove   C-MOVE          A701 A702 A801 A900 B000 Cxxx FE00 FF00
ColorPaletteQueryRetrieveInformationModelGet    C-GET           A701 A702 A900 B000 Cxxx FE00 FF00
GenericImplantTemplateInformationModelFind      C-FIND          A700 A900 Cxxx FE00 FF00 FF01
GenericImplantTemplateInformationModelMove      C-MOVE          A701 A702 A801 A900 B000 Cxxx FE00 FF00
GenericImplantTemplateInformationModelGet       C-GET           A701 A702 A900 B000 Cxxx FE00 FF00
ImplantAssemblyTemplateInformationModelFind     C-FIND          A700 A900 Cxxx FE00 FF00 FF01
ImplantAssemblyTemplateInformationModelMove     C-MOVE          A701 A702 A801 A900 B000 Cxxx FE00 FF00
ImplantAssemblyTemplateInformationModelGet      C-GET           A701 A702 A900 B000 Cxxx FE00 FF00
ImplantTemplateGroupInformationModelFind        C-FIND          A700 A900 Cxxx FE00 FF00 FF01
ImplantTemplateGroupInformationModelMove        C-MOVE          A701 A702 A801 A900 B000 Cxxx FE00 FF00
ImplantTemplateGroupInformationModelGet         C-GET           A701 A702 A900 B000 Cxxx FE00 FF00
UnifiedProcedureStepPush                        N-CREATE        B300 C309
UnifiedProcedureStepPush                        N-ACTION        B304 C307 C311 C312 C313
UnifiedProcedureStepPush                        N-GET           0001 C307
UnifiedProcedureStepWatch                       N-ACTION        B301 B304 C307 C308 C311 C312 C313 C314 C315
UnifiedProcedureStepWatch                       N-GET           0001 C307
UnifiedProcedureStepWatch                       C-FIND          A700 A900 Cxxx FE00 FF00 FF01
UnifiedProcedureStepPull                        N-ACTION        B304 B306 C300 C301 C302 C303 C304 C307 C310
UnifiedProcedureStepPull                        N-SET           0001 B305 C300 C301 C307 C310
UnifiedProcedureStepPull                        N-GET           0001 C307
UnifiedProcedureStepPull                        C-FIND          A700 A900 Cxxx FE00 FF00 FF01
UnifiedProcedureStepEvent                       N-EVENT-REPORT
UnifiedProcedureStepQuery                       C-FIND          A700 A900 Cxxx FE00 FF00 FF01
RTConventionalMachineVerification               N-CREATE        C221 C222 C223 C227
RTConventionalMachineVerification               N-SET           C224 C225 C226
RTConventionalMachineVerification               N-GET           C112
RTConventionalMachineVerification               N-ACTION        C112
RTConventionalMachineVerification               N-DELETE
RTConventionalMachineVerification               N-EVENT-REPORT
RTIonMachineVerification                        N-CREATE        C221 C222 C223 C227
RTIonMachineVerification                        N-SET           C224 C225 C226
RTIonMachineVerification                        N-GET           C112
RTIonMachineVerification                        N-ACTION        C112
RTIonMachineVerification                        N-DELETE
RTIonMachineVerification                        N-EVENT-REPORT
DisplaySystem                                   N-GET
DefinedProcedureProtocolInformationModelFind    C-FIND          A700 A900 Cxxx FE00 FF00 FF01
DefinedProcedureProtocolInformationModelMove    C-MOVE          A701 A702 A801 A900 B000 Cxxx FE00 FF00
DefinedProcedureProtocolInformationModelGet     C-GET           A701 A702 A900 B000 Cxxx FE00 FF00
ProtocolApprovalInformationModelFind            C-FIND          A700 A900 Cxxx FE00 FF00 FF01
ProtocolApprovalInformationModelMove            C-MOVE          A701 A702 A801 A900 B000 Cxxx FE00 FF00
ProtocolApprovalInformationModelGet             C-GET           A701 A702 A900 B000 Cxxx FE00 FF00
InventoryFind                                   C-FIND          A700 A900 Cxxx FE00 FF00 FF01
InventoryMove                                   C-MOVE          A701 A702 A801 A900 B000 Cxxx FE00 FF00
InventoryGet                                    C-GET           A701 A702 A900 B000 Cxxx FE00 FF00
InventoryCreation                               N-ACTION        B010
InventoryCreation                               N-EVENT-REPORT
RepositoryQuery                                 C-FIND          A700 A710 A900 B001 Cxxx FE00 FF00 FF01
"""

STORED = "A7xx A9xx B000 B006 B007 Cxxx"
"""C-STORE of a patient's objects, Table B.2-1."""

NON_PATIENT = "A700 A900 C000"
"""C-STORE of other objects, GG.4."""
