-- Whether the schema named $1 is a store, and how many relations it has.
SELECT
    to_regclass('journeyman.journeyman_layout') IS NOT NULL,
    (SELECT count(*) FROM pg_class JOIN pg_namespace AS found ON found.oid = relnamespace WHERE nspname = $1)
