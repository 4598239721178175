INSERT INTO journeyman.journeyman_layout VALUES ($1)
