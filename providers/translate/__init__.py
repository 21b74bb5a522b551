"""From one wire dialect to another and back, without I/O. OpenAI chat is the language in the middle."""
