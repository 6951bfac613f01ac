"""How clients come in: WebSocket and Server-Sent Events, and the server under both."""
