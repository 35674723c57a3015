// Tests of the room HTTPWire: one file per source file.
