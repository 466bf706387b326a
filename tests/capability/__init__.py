"""What a capability file says: reading, linking, filtering, exporting."""
