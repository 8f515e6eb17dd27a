"""The API's description in the hands of those who know nothing else of us: what fuzzes by it, and what makes clients.

Their programs are in an environment of their own, below `.cache`, made by the first test that needs it."""
