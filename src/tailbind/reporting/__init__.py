"""Results for people: pictures, one page, one text."""
