"""The sign-in server, its users and applications, and the access tokens that it issues."""
