"""What a caller may do: the policy file, the gate that every call and request passes, and the audit log."""
