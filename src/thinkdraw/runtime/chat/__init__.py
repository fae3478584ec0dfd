"""Chat with OpenAI-compatible servers: how they differ in what they take and in what they answer."""
