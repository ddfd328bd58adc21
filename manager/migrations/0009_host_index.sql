-- Events of a host are found by the index of words, as every other fact; nothing asked this one, and
-- each event paid for it.
DROP INDEX events_host;
