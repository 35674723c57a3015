// Tests of the room Scripting: one file per source file.
