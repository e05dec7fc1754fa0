"""Programs for people at a terminal: `client` asks one thing, `demo` plays a robot's minute."""
