"""The work table's executor: who runs which kind of work, where, how often, how long."""
