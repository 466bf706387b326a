"""How we speak HTTP: the only importer of httpx2 and authlib."""
