"""An engine behind HTTP: OpenAI's API, llama.cpp's infill, metrics, and a small page."""
