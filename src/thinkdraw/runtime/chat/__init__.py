"""Chat with OpenAI-compatible servers, which differ in requests and answers."""
