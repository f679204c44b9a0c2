"""The page on which the owner of private texts reads what was made from them, and accepts or rejects."""
