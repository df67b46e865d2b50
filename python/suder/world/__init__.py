"""A small world of procedurally drawn pictures and what is said about them."""
