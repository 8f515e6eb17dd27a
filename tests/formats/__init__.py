"""What is said between processes of different releases, byte by byte: golden files, one for each version spoken."""
