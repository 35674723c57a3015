// Tests of the room Model: one file per source file.
