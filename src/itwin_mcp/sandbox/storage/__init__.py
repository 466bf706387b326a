"""The storage service that upload and download links lead to, and the files in it."""
