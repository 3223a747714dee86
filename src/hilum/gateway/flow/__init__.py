"""What happens to images: receiving now; forwarding, queries and pipelines later."""
