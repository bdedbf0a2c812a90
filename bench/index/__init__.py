"""The index beside exact search and beside other indexes, and the embeddings that they are measured on."""
