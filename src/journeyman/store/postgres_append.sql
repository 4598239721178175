SELECT journeyman.append($1, $2, $3)
