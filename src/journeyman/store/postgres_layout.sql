SELECT max(number) FROM journeyman.journeyman_layout
