# Part of kafka_tools.sh: a compacted topic, as Kafka's own client and tools read it.

check "topics: create a compacted one" 'Created' "${topics[@]}" --create --topic accounts --partitions 1 \
    --config cleanup.policy=compact
# The latest of each of 40 keys, and four of them deleted.
awk 'BEGIN { for (n = 0; n < 4000; n++) printf "key-%d\tvalue %d\n", n % 40, n;
             for (n = 0; n < 4; n++) printf "key-%d\tNULL\n", n }' >"$work/accounts"
java_tool "$tool.ConsoleProducer" --bootstrap-server "$address" --topic accounts \
    --reader-property parse.key=true --reader-property null.marker=NULL \
    <"$work/accounts" >"$work/output" 2>&1
report "console-producer: keys and tombstones" $? nothing
if ! "$binary" storage compact accounts --now -b "$address" >"$work/output" 2>&1; then
    report "storage compact" 1 ''
fi
# It ends with the complaint that nothing more came.
java_tool "$tool.consumer.ConsoleConsumer" --bootstrap-server "$address" --topic accounts \
    --from-beginning --timeout-ms 5000 --formatter-property print.key=true \
    --formatter-property print.offset=true >"$work/read" 2>"$work/output"
# offset, key, value: offsets rise, one record a key below what was compacted, and the latest of each.
grep '^Offset' "$work/read" >"$work/found"
awk -F '\t' -v expected="$work/accounts" '
    { offset = substr($1, 8) + 0; if (NR > 1 && offset <= last) bad = "offsets fall at " offset
      last = offset; state[$2] = $3; records++ }
    END { while ((getline line < expected) > 0) { split(line, part, "\t"); want[part[1]] = part[2] }
          for (key in want) if (want[key] != "NULL" && state[key] != want[key]) bad = key " is " state[key]
          for (key in want) if (want[key] == "NULL" && state[key] != "null") bad = key " is " state[key]
          if (records < 40 || records > 400) bad = records " records"
          if (bad) { print bad; exit 1 } }' "$work/found" >"$work/output" 2>&1
report "console-consumer: the final state of a compacted topic" $? ''
check "dump-log: a compacted segment" 'isvalid: true' "$tool.DumpLogSegments" --deep-iteration \
    --files "$data/topics/accounts-0/00000000000000000000.log"
check "get-offsets: the largest timestamp of a compacted topic" 'accounts:0:[0-9]+' "$tool.GetOffsetShell" \
    --bootstrap-server "$address" --topic accounts --time -3
