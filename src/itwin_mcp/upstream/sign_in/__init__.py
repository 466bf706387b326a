"""Signing in: choosing a credential, a file for each way to get a token, and the saved login."""
