"""The storage service: files, and the signed links to upload and download them."""
