"""How clients connect: stdio, streamable HTTP, and what both check before the protocol sees a message."""
