// Tests of the room Middlewares: one file per source file.
