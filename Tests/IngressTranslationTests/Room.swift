// Tests of the room IngressTranslation: one file per source file.
