"""One file per way to get a token, behind one TokenSource protocol."""
