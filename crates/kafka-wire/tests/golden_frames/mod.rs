//! The frames: hexadecimal bytes, `'text'` for letters, comments behind `#`.

pub(crate) const API_VERSIONS_REQUEST_0: &str = "
    00 00 00 0d         # 13 bytes follow
    00 12               # API 18
    00 00               # version 0
    00 00 00 07         # correlation id
    00 03 'sap'         # client id
";

// The answer to a version that the broker does not know, whatever that was.
pub(crate) const API_VERSIONS_RESPONSE_0: &str = "
    00 00 00 10         # 16 bytes follow
    00 00 00 07         # correlation id
    00 23               # error 35: the version is not supported
    00 00 00 01         # 1 API
    00 12 00 00 00 04   # 18, versions 0 to 4
";

pub(crate) const API_VERSIONS_REQUEST_3: &str = "
    00 00 00 1b         # 27 bytes follow
    00 12               # API 18
    00 03               # version 3
    00 00 00 07         # correlation id
    00 03 'sap'         # client id, not compact
    00                  # no tagged fields in the header
    08 'sapwood'        # name: 7 letters, said as 8
    04 '0.1'            # version
    00                  # no tagged fields
";

pub(crate) const API_VERSIONS_RESPONSE_3: &str = "
    00 00 00 39         # 57 bytes follow
    00 00 00 07         # correlation id; no tagged fields, other than in responses of this age
    00 00               # no error
    02                  # 1 API
    00 12 00 00 00 04 00 # 18, versions 0 to 4, no tagged fields
    00 00 00 00         # throttle time
    02                  # 2 tagged fields
    01 08               # tag 1, 8 bytes
    00 00 00 00 00 00 00 02 # epoch of the finalized features
    02 1a               # tag 2, 26 bytes
    02                  # 1 feature
    14 'transaction.version' # 19 letters
    00 02 00 00         # level at most 2, at least 0
    00                  # no tagged fields
";

pub(crate) const METADATA_REQUEST_0_ALL: &str = "
    00 00 00 11
    00 03 00 00         # API 3, version 0
    00 00 00 07 00 03 'sap'
    00 00 00 00         # no topic means all of them
";

pub(crate) const METADATA_REQUEST_1_ALL: &str = "
    00 00 00 11
    00 03 00 01         # API 3, version 1
    00 00 00 07 00 03 'sap'
    ff ff ff ff         # null: all topics
";

pub(crate) const METADATA_REQUEST_4: &str = "
    00 00 00 16
    00 03 00 04         # API 3, version 4
    00 00 00 07 00 03 'sap'
    00 00 00 01         # 1 topic
    00 02 't1'
    01                  # may be made
";

pub(crate) const METADATA_RESPONSE_4: &str = "
    00 00 00 49
    00 00 00 07
    00 00 00 00         # throttle time
    00 00 00 01         # 1 broker
    00 00 00 01         # its number
    00 01 'h'           # host
    00 00 23 84         # port 9092
    ff ff               # no rack
    00 01 'c'           # cluster
    00 00 00 01         # controller
    00 00 00 01         # 1 topic
    00 00               # no error
    00 02 't1'
    00                  # not internal
    00 00 00 01         # 1 partition
    00 00               # no error
    00 00 00 00         # partition 0
    00 00 00 01         # leader
    00 00 00 01 00 00 00 01 # replicas
    00 00 00 01 00 00 00 01 # in sync
";

pub(crate) const METADATA_REQUEST_12: &str = "
    00 00 00 38
    00 03 00 0c         # API 3, version 12
    00 00 00 07 00 03 'sap' 00
    03                  # 2 topics
    00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff # id
    00                  # no name
    00                  # no tagged fields
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 # no id
    03 't1'
    00                  # no tagged fields
    00                  # may not be made
    01                  # say what the client may do with the topics
    00                  # no tagged fields
";

pub(crate) const METADATA_RESPONSE_12: &str = "
    00 00 00 54
    00 00 00 07
    00                  # no tagged fields in the header
    00 00 00 00         # throttle time
    02                  # 1 broker
    00 00 00 01 02 'h' 00 00 23 84 00 00 # number, host, port, no rack, no tagged fields
    02 'c'              # cluster
    00 00 00 01         # controller
    02                  # 1 topic
    00 00               # no error
    03 't1'
    00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff
    00                  # not internal
    02                  # 1 partition
    00 00               # no error
    00 00 00 00         # partition 0
    00 00 00 01         # leader
    00 00 00 05         # epoch
    02 00 00 00 01      # replicas
    02 00 00 00 01      # in sync
    01                  # none offline
    00                  # no tagged fields
    80 00 00 00         # what the client may do: nobody asked
    00                  # no tagged fields
    00                  # no tagged fields
";

pub(crate) const PRODUCE_REQUEST_3: &str = "
    00 00 00 2e
    00 00 00 03         # API 0, version 3
    00 00 00 07 00 03 'sap'
    ff ff               # no transactional id
    ff ff               # acks: all
    00 00 75 30         # 30 s
    00 00 00 01         # 1 topic
    00 02 't1'
    00 00 00 01         # 1 partition
    00 00 00 02         # partition 2
    00 00 00 05 'batch'
";

pub(crate) const PRODUCE_RESPONSE_3: &str = "
    00 00 00 2a
    00 00 00 07
    00 00 00 01         # 1 topic
    00 02 't1'
    00 00 00 01         # 1 partition
    00 00 00 02         # partition 2
    00 00               # no error
    00 00 00 00 00 00 01 02 # base offset 258
    ff ff ff ff ff ff ff ff # the records have their own times
    00 00 00 00         # throttle time, at the end
";

pub(crate) const PRODUCE_REQUEST_9: &str = "
    00 00 00 29
    00 00 00 09         # API 0, version 9
    00 00 00 07 00 03 'sap' 00
    03 'tx'             # transactional id
    ff ff               # acks: all
    00 00 75 30         # 30 s
    02                  # 1 topic
    03 't1'
    02                  # 1 partition
    00 00 00 02         # partition 2
    06 'batch'
    00                  # no tagged fields of the partition
    00                  # of the topic
    00                  # of the request
";

pub(crate) const PRODUCE_RESPONSE_9: &str = "
    00 00 00 3a
    00 00 00 07 00
    02                  # 1 topic
    03 't1'
    02                  # 1 partition
    00 00 00 02         # partition 2
    00 57               # error 87: a record is not valid
    ff ff ff ff ff ff ff ff # no base offset
    ff ff ff ff ff ff ff ff # no append time
    00 00 00 00 00 00 00 03 # log start
    02                  # 1 record
    00 00 00 04 00 00   # number 4, no message, no tagged fields
    04 'bad'            # message
    00                  # no tagged fields of the partition
    00                  # of the topic
    00 00 00 00         # throttle time
    00                  # no tagged fields of the response
";

pub(crate) const PRODUCE_REQUEST_13: &str = "
    00 00 00 34
    00 00 00 0d         # API 0, version 13
    00 00 00 07 00 03 'sap' 00
    00                  # no transactional id
    ff ff               # acks: all
    00 00 75 30         # 30 s
    02                  # 1 topic
    00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff
    02                  # 1 partition
    00 00 00 02         # partition 2
    06 'batch'
    00 00 00            # no tagged fields
";

pub(crate) const PRODUCE_RESPONSE_13: &str = "
    00 00 00 49
    00 00 00 07 00
    02                  # 1 topic
    00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff
    02                  # 1 partition
    00 00 00 02         # partition 2
    00 00               # no error
    00 00 00 00 00 00 01 02 # base offset 258
    ff ff ff ff ff ff ff ff # no append time
    ff ff ff ff ff ff ff ff # log start not known
    01                  # no bad records
    00                  # no message
    01                  # 1 tagged field
    00 09               # tag 0, 9 bytes
    00 00 00 02 00 00 00 09 00 # leader 2, epoch 9, no tagged fields
    00                  # no tagged fields of the topic
    00 00 00 00         # throttle time
    00                  # no tagged fields of the response
";

pub(crate) const FETCH_REQUEST_4: &str = "
    00 00 00 3a
    00 01 00 04         # API 1, version 4
    00 00 00 07 00 03 'sap'
    ff ff ff ff         # a client, not a broker
    00 00 01 f4         # wait 500 ms
    00 00 00 01         # for a byte
    00 00 04 00         # 1 KiB at most
    01                  # committed records only
    00 00 00 01         # 1 topic
    00 02 't1'
    00 00 00 01         # 1 partition
    00 00 00 02         # partition 2
    00 00 00 00 00 00 00 2a # from offset 42 on
    00 00 02 00         # 512 bytes at most
";

pub(crate) const FETCH_RESPONSE_4: &str = "
    00 00 00 47
    00 00 00 07
    00 00 00 00         # throttle time
    00 00 00 01         # 1 topic
    00 02 't1'
    00 00 00 01         # 1 partition
    00 00 00 02         # partition 2
    00 00               # no error
    00 00 00 00 00 00 00 32 # high watermark 50
    00 00 00 00 00 00 00 30 # last stable offset 48
    00 00 00 01         # 1 aborted transaction
    00 00 00 00 00 00 00 09 # of producer 9
    00 00 00 00 00 00 00 2c # from offset 44 on
    00 00 00 05 'batch'
";

pub(crate) const FETCH_REQUEST_13: &str = "
    00 00 00 5f
    00 01 00 0d         # API 1, version 13
    00 00 00 07 00 03 'sap' 00
    ff ff ff ff         # a client, not a broker
    00 00 01 f4         # wait 500 ms
    00 00 00 01         # for a byte
    00 00 04 00         # 1 KiB at most
    01                  # committed records only
    00 00 00 00         # no session yet
    00 00 00 00         # open one
    02                  # 1 topic
    00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff
    02                  # 1 partition
    00 00 00 02         # partition 2
    00 00 00 05         # leader epoch 5
    00 00 00 00 00 00 00 2a # from offset 42 on
    ff ff ff ff         # no record read yet
    ff ff ff ff ff ff ff ff # no log of its own
    00 00 02 00         # 512 bytes at most
    00                  # no tagged fields of the partition
    00                  # of the topic
    01                  # nothing forgotten
    02 'r'              # rack
    00                  # no tagged fields of the request
";

pub(crate) const FETCH_RESPONSE_13: &str = "
    00 00 00 6d
    00 00 00 07 00
    00 00 00 00         # throttle time
    00 00               # no error
    00 00 00 0b         # session 11
    02                  # 1 topic
    00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff
    02                  # 1 partition
    00 00 00 02         # partition 2
    00 00               # no error
    00 00 00 00 00 00 00 32 # high watermark 50
    00 00 00 00 00 00 00 30 # last stable offset 48
    00 00 00 00 00 00 00 01 # log start 1
    02                  # 1 aborted transaction
    00 00 00 00 00 00 00 09 # of producer 9
    00 00 00 00 00 00 00 2c # from offset 44 on
    00                  # no tagged fields
    ff ff ff ff         # no better replica
    06 'batch'
    01                  # 1 tagged field
    00 0d               # tag 0, 13 bytes
    00 00 00 03         # epoch 3
    00 00 00 00 00 00 00 28 # ends at 40
    00                  # no tagged fields of it
    00                  # of the topic
    00                  # of the response
";

pub(crate) const LIST_OFFSETS_REQUEST_1: &str = "
    00 00 00 29
    00 02 00 01         # API 2, version 1
    00 00 00 07 00 03 'sap'
    ff ff ff ff         # a client, not a broker
    00 00 00 01         # 1 topic
    00 02 't1'
    00 00 00 01         # 1 partition
    00 00 00 02         # partition 2
    ff ff ff ff ff ff ff fe # -2: the start
";

pub(crate) const INIT_PRODUCER_ID_REQUEST_4: &str = "
    00 00 00 1e
    00 16 00 04         # API 22, version 4
    00 00 00 07 00 03 'sap' 00
    00                  # no transactional id
    00 00 ea 60         # 60 s
    ff ff ff ff ff ff ff ff # no producer id yet
    ff ff               # no epoch yet
    00                  # no tagged fields
";

pub(crate) const INIT_PRODUCER_ID_RESPONSE_4: &str = "
    00 00 00 16
    00 00 00 07 00
    00 00 00 00         # throttle time
    00 00               # no error
    00 00 00 00 00 00 03 e8 # producer 1000
    00 00               # epoch 0
    00                  # no tagged fields
";

pub(crate) const OFFSET_FOR_LEADER_EPOCH_RESPONSE_4: &str = "
    00 00 00 23
    00 00 00 07 00
    00 00 00 00         # throttle time
    02                  # 1 topic
    03 't1'
    02                  # 1 partition
    00 00               # no error, before the number here
    00 00 00 02         # partition 2
    00 00 00 05         # epoch 5
    00 00 00 00 00 00 00 32 # ends at 50
    00 00 00            # no tagged fields
";

pub(crate) const CONSUMER_GROUP_HEARTBEAT_RESPONSE_1: &str = "
    00 00 00 34
    00 00 00 07 00
    00 00 00 00         # throttle time
    00 00               # no error
    00                  # no message
    02 'm'              # member
    00 00 00 03         # epoch 3
    00 00 13 88         # every 5 s
    01                  # there is an assignment
    02                  # 1 topic
    00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff
    03 00 00 00 00 00 00 00 01 # partitions 0 and 1
    00                  # no tagged fields of the topic
    00                  # of the assignment
    00                  # of the response
";

pub(crate) const CONSUMER_GROUP_HEARTBEAT_RESPONSE_1_UNCHANGED: &str = "
    00 00 00 18
    00 00 00 07 00
    00 00 00 00         # throttle time
    00 00               # no error
    00                  # no message
    02 'm'              # member
    00 00 00 03         # epoch 3
    00 00 13 88         # every 5 s
    ff                  # there is none: it has not changed
    00                  # no tagged fields
";

pub(crate) const CREATE_TOPICS_RESPONSE_7: &str = "
    00 00 00 2d
    00 00 00 07 00
    00 00 00 00         # throttle time
    02                  # 1 topic
    03 't1'
    00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff
    00 00               # no error
    00                  # no message
    ff ff ff ff         # partitions: not to be seen
    ff ff               # copies: not to be seen
    00                  # configurations: not to be seen
    01 00 02 00 1d      # 1 tagged field: tag 0, 2 bytes, error 29
    00                  # no tagged fields of the response
";

pub(crate) const JOIN_GROUP_REQUEST_5: &str = "
    00 00 00 37
    00 0b 00 05         # API 11, version 5
    00 00 00 07 00 03 'sap'
    00 01 'g'           # group
    00 00 27 10         # session: 10 s
    00 00 ea 60         # rebalance: 60 s
    00 00               # no member id yet
    ff ff               # not static
    00 08 'consumer'
    00 00 00 01         # 1 protocol
    00 05 'range'
    00 00 00 02 00 01   # its metadata
";
