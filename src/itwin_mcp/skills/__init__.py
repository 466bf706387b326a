"""The same catalog as agent skills: guides kept with the capabilities, completed by what the catalog says."""
