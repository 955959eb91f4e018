"""Workers that are killed: at named moments on the wire, and at random ones."""
