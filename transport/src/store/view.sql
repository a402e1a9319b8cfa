-- What a Splunk search over script blocks ends in: missing values filled with 0, then
-- `stats count min(_time) max(_time) by …`, here for each rule apart.
--
-- A value is missing when it is NULL or empty; Splunk does not extract an empty field either. The casts give
-- the columns a type, so that Path = 0 and Path = '0' both find what was filled.
CREATE VIEW detections AS
WITH filled AS (
    SELECT
        h.time,
        CAST(coalesce(nullif(h.computer, ''), '0') AS TEXT) AS dest,
        CAST(CASE h.event_id
            WHEN 4104 THEN 'Creating Scriptblock text (' || coalesce(h.message_number, 0)
                || ' of ' || coalesce(h.message_total, 0) || ')'
            -- The name of task 106, all that a 4103 says of itself.
            WHEN 4103 THEN 'Executing Pipeline'
            WHEN 1101 THEN 'AmsiScanBuffer'
            ELSE '0'
        END AS TEXT) AS signature,
        CAST(h.event_id AS INTEGER) AS signature_id,
        CAST(coalesce(nullif(h.user_sid, ''), '0') AS TEXT) AS user_id,
        CAST('Microsoft Windows' AS TEXT) AS vendor_product,
        CAST(h.event_id AS INTEGER) AS EventID,
        -- In braces and lower case, as event XML has it.
        CAST('{' || h.provider || '}' AS TEXT) AS Guid,
        CAST(h.opcode AS INTEGER) AS Opcode,
        CAST(CASE h.provider
            WHEN 'a0c1853b-5c40-4b15-8766-3cf1c58f985a' THEN 'Microsoft-Windows-PowerShell'
            WHEN 'f90714a8-5509-434a-bf6d-b1624c8a19a2' THEN 'PowerShellCore'
            WHEN '2a576b87-09a7-520e-c21a-4942f0271d67' THEN 'Microsoft-Antimalware-Scan-Interface'
            ELSE '0'
        END AS TEXT) AS Name,
        CAST(coalesce(nullif(h.path, ''), '0') AS TEXT) AS Path,
        CAST(coalesce(h.process_id, 0) AS INTEGER) AS ProcessID,
        CAST(coalesce(nullif(h.script_block_id, ''), '0') AS TEXT) AS ScriptBlockId,
        CAST(coalesce(nullif(h.script_block_text, ''), '0') AS TEXT) AS ScriptBlockText,
        CAST(coalesce(nullif(r.rule_id, ''), '0') AS TEXT) AS rule_id,
        CAST(coalesce(nullif(r.title, ''), '0') AS TEXT) AS rule_title
    FROM hits AS h
    JOIN hit_rules AS r ON r.hit_id = h.id
)
SELECT
    count(*) AS count,
    -- ISO 8601 in UTC, to the second. Years above 9999 stay a FILETIME.
    CAST(coalesce(
        strftime('%Y-%m-%dT%H:%M:%S', min(time) / 10000000 - 11644473600, 'unixepoch'), min(time)
    ) AS TEXT) AS firstTime,
    CAST(coalesce(
        strftime('%Y-%m-%dT%H:%M:%S', max(time) / 10000000 - 11644473600, 'unixepoch'), max(time)
    ) AS TEXT) AS lastTime,
    dest, signature, signature_id, user_id, vendor_product, EventID, Guid, Opcode, Name, Path, ProcessID,
    ScriptBlockId, ScriptBlockText, rule_id, rule_title
FROM filled
GROUP BY
    dest, signature, signature_id, user_id, vendor_product, EventID, Guid, Opcode, Name, Path, ProcessID,
    ScriptBlockId, ScriptBlockText, rule_id, rule_title;
