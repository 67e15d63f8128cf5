"""Eight small grammars that say the same scene: one module a language, meanings in `scenes`."""
