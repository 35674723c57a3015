// Tests of the room Routing: one file per source file.
