"""The language that SDK and server both speak: events, names, translation, wire. Pure; no input or output."""
