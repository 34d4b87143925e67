"""The course's own servers, built with aiohttp."""
