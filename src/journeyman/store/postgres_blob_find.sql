SELECT saved, parts FROM journeyman.blobs WHERE name = $1
