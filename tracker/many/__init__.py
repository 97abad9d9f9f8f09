"""Many videos, a process each at a time: which there are, who works on them, what became of them."""
