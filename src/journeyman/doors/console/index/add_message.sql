INSERT INTO messages (position, id, name, feature, subject, recorded_at_us, correlation, causation, actor, fence)
VALUES (
    ?1,
    coalesce(unhex(replace(?2, '-', '')), ?2),
    ?3, ?4, ?5, ?6,
    CASE WHEN ?7 <> ?2 THEN coalesce(unhex(replace(?7, '-', '')), ?7) END,
    coalesce(unhex(replace(?8, '-', '')), ?8),
    ?9, ?10
)
