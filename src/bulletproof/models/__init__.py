"""Load models safely, keep versions of them, and have them predict."""
