"""One module for each library whose models can be loaded."""
