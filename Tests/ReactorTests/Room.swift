// Tests of the room Reactor: one file per source file.
