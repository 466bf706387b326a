"""The same catalog as agent skills: guides from `capabilities/skills`, completed with tables from the catalog."""
