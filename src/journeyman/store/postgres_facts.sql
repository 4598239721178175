SELECT
    current_setting('server_version') AS server,
    (
        SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
        WHERE relkind = 'r' AND relnamespace = $1::regnamespace
    ) AS size_bytes,
    (
        SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'journeyman' AND datname = current_database()
    ) AS connections
