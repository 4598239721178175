UPDATE revisions SET last = last + 1 RETURNING last
