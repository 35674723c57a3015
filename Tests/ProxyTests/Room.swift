// Tests of the room Proxy: one file per source file.
