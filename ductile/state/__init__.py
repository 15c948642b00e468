"""Plugin state, kept between runs."""
