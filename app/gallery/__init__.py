"""The gallery: cameras, crops, their images and embeddings."""
